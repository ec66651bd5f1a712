"""What is declared against what there is: changes, steps, apply."""
