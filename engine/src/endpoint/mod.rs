//! What the inference protocols say: a turn becomes a request body, a response event becomes a reading.
