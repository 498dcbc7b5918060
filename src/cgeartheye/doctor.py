"""`doctor`: what works on this machine, what is missing, how to mend it."""
