"""Summaries of documents: BertSumExt, BertSumAbs and BertSumExtAbs."""
