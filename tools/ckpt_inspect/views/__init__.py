"""Ways to show a source: each as lines for people and as members of a JSON document."""
