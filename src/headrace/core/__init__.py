"""What every slice needs: errors, times, schema, expressions, points. Pure."""
