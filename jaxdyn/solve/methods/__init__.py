"""The methods of ensembles, one integrator a file; each is a program for the engines."""
