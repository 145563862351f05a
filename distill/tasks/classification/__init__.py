"""Classification: a row is a text, a pair of texts or a vector of features, with one label."""
