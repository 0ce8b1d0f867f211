//! What inventories promise.
