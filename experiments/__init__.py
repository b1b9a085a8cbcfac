"""The paper's tables, one readable file each."""
