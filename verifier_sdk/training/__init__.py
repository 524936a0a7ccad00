"""Train, evaluate and report on the learned judge: `coin train` and `coin eval`."""
