//! Tests of the node: alone, in a group that loses messages and memory, and against nonsense.

mod alone;
mod group;
mod nonsense;
