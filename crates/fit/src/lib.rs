//! Observations in, scaling law with uncertainty out.
