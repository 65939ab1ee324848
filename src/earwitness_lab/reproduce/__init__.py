"""The papers' systems stage by stage: plan, checks, memory, and the table beside theirs."""
