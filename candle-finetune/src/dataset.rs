//! A folder of photos → classes, splits and labelled image paths.
