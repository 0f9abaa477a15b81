//! Law and outcomes to tables, figures, pages, exports.
