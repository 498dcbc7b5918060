"""From a catalogue, or plain image folders, to a balanced multi-season data set in shards."""
