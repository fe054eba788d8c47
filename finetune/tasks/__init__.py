"""What a task is: a module of plain functions that join the parts, the same names in each."""
