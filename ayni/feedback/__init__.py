"""People's preferences: the store that keeps them, the page that asks for them, and how well they agree. No torch."""
