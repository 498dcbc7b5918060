"""Seasonal self-distillation: a student, its EMA teacher, three contrasts."""
