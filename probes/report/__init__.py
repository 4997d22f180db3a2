"""Records of evaluations, and the plots, picture sheets and pages made of them."""
