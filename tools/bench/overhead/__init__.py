"""What ``protection.py`` measures: one module a question, and the record that holds the answers.

``graphs``: what is compared. ``cases``, ``pytorch``, ``engines``: bare against protected on each runner.
``parts``: where the time goes. ``cascade``: literal against deployed. ``floor``: what the machine sets.
``scaling``: how the cost grows. ``record``, ``bars``, ``tables``, ``plot``: what is written, and its form.
"""
