"""DQN(lambda): lambda-returns with experience replay (Daley, Amato 2019)."""
