//! Malformed members of every request.
