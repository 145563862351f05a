"""An exported student: written, found again, converted, and used to predict."""
