"""From estimates to what people read: tables, sentences, pages, and the figures in `figures`."""
