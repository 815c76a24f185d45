"""A3C(lambda): actors in processes of their own, one shared network."""
