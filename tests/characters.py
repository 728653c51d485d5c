"""An alphabet for texts by chance: short, since of all of Unicode Hypothesis makes a table first, which takes seconds."""

PLAIN = "aBz09 _-.,;:'`|#=/\\\"[]{}<>\xa0\xad\u0301\u200bÉßİאع日\u2028\ufeff\uffff\U0001f600\U0010ffff"  # of one to four bytes
CONTROL = "\0\a\t\n\v\r\x1b\x7f\x85"
