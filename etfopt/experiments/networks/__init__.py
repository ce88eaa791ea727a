"""What a run trains, built from its settings: backbones, losses and optimisers by name."""
