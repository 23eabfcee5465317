"""Threshold rules, one file each: functions ``(histogram, **options) -> (amax, note)``."""
