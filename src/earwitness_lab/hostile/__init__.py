"""Hostile inputs, made on purpose: what the robustness benchmark and the tests give to earwitness."""
