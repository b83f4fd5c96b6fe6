"""All equilibria of SG and EMA: equations, path tracking, generic solutions, census, certificates, branches."""
