"""What training loops share: runtime, schedules, parameter groups, checkpoints."""
