"""What is learnt: the network, its fine-tuned head, SVMs and box regressors."""
