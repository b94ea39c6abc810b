"""What every page needs: sessions, forms, a guard against hostile requests, and the rendering of templates."""
