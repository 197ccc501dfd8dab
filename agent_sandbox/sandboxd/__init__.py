"""sandboxd"""
