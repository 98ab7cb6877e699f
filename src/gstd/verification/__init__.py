"""What makes a result right: signatures, and the referee that runs work again."""
