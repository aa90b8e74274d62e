"""From DeePMD-kit's model files to the records of a ``.dpa2`` file.

In order: `source` opens a file of any format and yields one head's configuration and tensors,
`config` reads the configuration, `records` checks the tensors against it and names them as
docs/model-format.md says, `elements` keeps the elements that are wanted.
"""
