"""The search for the student: candidates, their cost, their training with successive halving, and the results."""
