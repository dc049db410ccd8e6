"""The views of pictures: folders, contact sheets, videos, and pictures from text."""
