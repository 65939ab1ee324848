"""Hostile inputs, for the robustness benchmark and the tests."""
