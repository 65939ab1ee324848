"""How the pocket encoder learns: teacher, scenes, distillation."""
