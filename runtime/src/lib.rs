//! one process in one sandbox
