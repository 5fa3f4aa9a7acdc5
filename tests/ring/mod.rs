//! Tests of the ring algorithms over memories that are not mapped.
