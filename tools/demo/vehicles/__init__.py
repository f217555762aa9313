"""`fogline demo --scenario vehicles`: a car maker, its plants, its fleet, and the roads it uses."""
