"""Functions on tensors in the calling conventions of torch, NumPy and the Array API, made of the ops of the table.

A call that uses torch's words (`dim`, `keepdim`, `unbiased`, or an axis by position) gets torch's answer; any other
call gets that of the Array API standard. They differ for sort, max, min, var, std and squeeze. Methods of tensors
always follow torch.
"""
