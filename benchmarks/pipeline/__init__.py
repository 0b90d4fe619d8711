"""Real compute on two devices of one core each: Associated Learning's pipeline beside what else one would use."""
