"""How a network does under conditions that MNIST does not have; each suite is a module's."""
