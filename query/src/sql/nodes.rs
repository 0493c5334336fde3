//! Operators of our own that plans may contain, and the planner that knows them.
