"""Float network against engine: metrics, gates, layers, sensitivity, accuracy budget."""
