"""The papers' figures and ours; `gallery` has them by id."""
