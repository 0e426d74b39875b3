"""Results of many trainings: records read from runs' folders, and tables, figures and pages made of these alone."""
